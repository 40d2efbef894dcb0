const LEAST_CHARACTERS = 8;
const MOST_CHARACTERS = 128;

export const PASSWORD_HINT = `${LEAST_CHARACTERS} to ${MOST_CHARACTERS} characters.`;

/** Why a new password cannot be taken; undefined where it can. The server refuses common ones too. Pure. */
export function passwordProblem(password: string): string | undefined {
  const characters = Array.from(password).length;
  if (characters < LEAST_CHARACTERS) return `At least ${LEAST_CHARACTERS} characters.`;
  return characters > MOST_CHARACTERS ? `At most ${MOST_CHARACTERS} characters.` : undefined;
}

/** The token behind the `#` of a mailed link: browsers keep that part to themselves. Pure. */
export function mailedToken(hash: string): string {
  return new URLSearchParams(hash.replace(/^#/u, '')).get('token')?.trim() ?? '';
}

/** A link to the page for who was invited; what is behind the `#` reaches no server's log. Pure. */
export function invitationLink(origin: string, token: string, email: string | null): string {
  const behind = new URLSearchParams({ invitation: token, ...(email === null ? {} : { email }) });
  return `${origin}/register#${behind.toString()}`;
}
