"""A bounded sample of the served images, with their boxes, to label and to train on."""
