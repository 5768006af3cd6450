"""Everything that the service keeps, and the only room with SQL.

Owns: tables, statements and migrations, a file for each kind of memory. Does not own: the meaning of what is kept.
The way in is one class a file, wired with `database.Database`; `revisions` has billers' configuration, `audit` the
trail. A failure of the database leaves as DatabaseUnavailable or NotRecorded where a method is called for it.
"""
