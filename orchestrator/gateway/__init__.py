"""How do HTTP clients reach the instances?"""
