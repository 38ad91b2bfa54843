"""Pictures that the project draws itself, with exact boxes."""
