"""A fleet of simulated devices that loads a core from outside, as real devices would: plan, devices, report."""
