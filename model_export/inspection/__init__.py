"""What is in a data set: tables, warnings and a page, before anything is trained."""
