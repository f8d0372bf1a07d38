"""The HTTP server around one or several artifacts; no torch in its process.

Request → guard (size, time) → key → route → admission (bounded) → decode → batch → network → encode → answer.
"""
