"""Which instance computes which request, and when?"""
