"""The content of a data set as tables, warnings and a page, before anything is trained."""
