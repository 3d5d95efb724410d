"""OpenADR 3 as a VEN: a utility's events become load targets, and reports go back to it.

From the OpenAPI of OpenADR 3.0.1 and the definitions and user guide of 3.1 (OpenADR Alliance,
Apache-2.0). A VTN of either version is read: targets as maps or as plain names, periods with or
without a start, `programID` in a report or not.
"""
