"""What does this machine look like, and what of it may this process use?"""
