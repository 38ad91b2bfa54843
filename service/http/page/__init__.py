"""What the server shows to people in a browser: a page to try it, and its documentation."""
