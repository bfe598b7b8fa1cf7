"""How good labels are: CoSy, measures that pass sanity tests, pairs, baselines, and scores of sets of neurons."""
