"""The folder of one model: its versions, and the file that shares its traffic among them."""
