"""What does it cost, and how fast is it?"""
