"""The arithmetic of the emulator: what a customer holds, how it is used up, and what time and plans do to it.

Pure: no database, no clock of its own, no HTTP. What happens on a refund is in `_balances`.
"""
