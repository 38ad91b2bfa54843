"""One module per command: `add_arguments(parser)`, and `run(arguments)` that does the work.

`run` does the heavy imports itself, so that `fetch` and `adopt` never need torch.
"""
