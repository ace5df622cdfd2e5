"""Who keeps the processes alive?"""
