"""Set up a study: write its config, say what it will cost, and find what is missing before it runs."""
