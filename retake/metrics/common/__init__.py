"""What several metrics share: crops, samples, likeness, guards."""
