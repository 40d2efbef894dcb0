# name, e-mail address: what commits are signed with until the user says otherwise.
identify "$1" "$2"
