/**
 * Why somebody is at the sign-in, who was signed in a moment ago. Lives as long as the page, until
 * the next sign-in.
 */
let words: string | undefined;

export function sayAtSignIn(text: string | undefined): void {
  words = text;
}

export function saidAtSignIn(): string | undefined {
  return words;
}
