"""One module per command, whose function `run` has the command's arguments and its help.

`run` does the heavy imports itself, so that `fetch` and `adopt` never need torch.
"""
