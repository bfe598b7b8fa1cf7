"""The tab "Search": which pictures hold the concepts asked for."""
