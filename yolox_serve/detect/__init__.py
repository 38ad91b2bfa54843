"""`yolox-serve detect`: from files, folders and videos to boxes in the format of another tool."""
