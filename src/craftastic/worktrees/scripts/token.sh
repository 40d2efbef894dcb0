# repository. Prints the token of the sandbox for the gateway that git uses in it, if that can be read.
if [ -f "$1/craftastic.config" ]; then
	head -c 10000 "$1/craftastic.config" |
		sed -n 's/^\textraHeader = Authorization: Bearer \([A-Za-z0-9_-]\{1,200\}\)$/token \1/p' | head -n 1
fi
