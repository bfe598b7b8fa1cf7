"""The tab "Match": why two items match."""
