"""How does a user say what is to run?"""
