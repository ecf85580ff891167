"""An engine as the front end sees it: in a process of its own, behind a socket."""
