"""One module per command: `add_arguments(parser)`, and `run(arguments)` that does the work.

Heavy imports stay inside `run`, so that `fetch` and `adopt` never need torch.
"""
