"""Commands about data sets, and the arguments that name them."""
