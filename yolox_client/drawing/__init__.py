"""Boxes with their labels on a picture: colours, places, lines; numpy and Pillow only."""
