"""Search of hyper-parameters within a budget: the space, the draws, successive halving. It knows no protocol and imports nothing heavy."""
