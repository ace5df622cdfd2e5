"""Which instance gets which cores, which memory and which lengths?"""
