"""LINE: open-vocabulary labels for neurons, found by a proposer, an imager and the neuron in a closed loop."""
