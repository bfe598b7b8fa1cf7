"""The tab "Steer": what a change of a concept does."""
