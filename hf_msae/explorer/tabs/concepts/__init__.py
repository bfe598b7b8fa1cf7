"""The tab "Concepts": what a latent responds to."""
