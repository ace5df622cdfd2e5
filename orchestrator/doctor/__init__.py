"""What of this host costs speed or prevents serving, how much, and what mends it?"""
