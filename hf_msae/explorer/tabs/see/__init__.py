"""The tab "See": what the model sees in a picture or text."""
