"""HTTP: the application, its routes, bodies, answers and limits."""
