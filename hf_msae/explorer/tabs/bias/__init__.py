"""The tab "Bias": which concepts drive a classifier."""
