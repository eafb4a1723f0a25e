"""What a neuron is: its specification, its parameters' values, and the rule of winners; nothing of time or backends."""
