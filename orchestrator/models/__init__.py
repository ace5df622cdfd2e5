"""Which artefact serves a model on this machine?"""
