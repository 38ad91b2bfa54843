"""The YOLOX networks: backbones, necks and heads, and the variants put together from them."""
