"""How does a program talk to the running models directly, past HTTP?"""

from orchestrator.client.blocking import Client, Description, Refused, RouterSilent
from orchestrator.client.texts import NoTokens, TextTooLong, TooManyCharacters

__all__ = ["Client", "Description", "NoTokens", "Refused", "RouterSilent", "TextTooLong", "TooManyCharacters"]
