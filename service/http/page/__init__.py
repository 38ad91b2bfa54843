"""The pages that people see in a browser: one to try the server, and its documentation."""
