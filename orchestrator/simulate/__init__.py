"""What would the router that ships do on another machine, or with other traffic?"""
