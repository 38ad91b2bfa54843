"""The YOLOX networks: backbones, necks and heads, and the variants built from them."""
