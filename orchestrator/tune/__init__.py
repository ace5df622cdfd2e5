"""Which layout is best for this model, these lengths and this machine, by measurement?"""
