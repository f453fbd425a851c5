"""Recording what the activation proof judges: adapters of real steps, a real engine's log-probs, the learner's."""
