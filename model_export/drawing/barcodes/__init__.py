"""Draw any number of barcode pictures with exact boxes, to train the built-in detector."""
