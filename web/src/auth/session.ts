import { useSyncExternalStore } from 'react';
import { api } from '@/api/client';
import type { Login, Registration, Tokens, User } from '@/api/types';
import { sayAtSignIn } from './farewell';
import { tokens, type SignIn } from './tokens';

export function useSignIn(): SignIn | null {
  return useSyncExternalStore(tokens.subscribe, tokens.read);
}

/** The signed-in user; only for what is shown behind the guard. */
export function useUser(): User {
  const signIn = useSignIn();
  // Between a sign-out and the guard's turn to the login page, somebody may still ask.
  return signIn?.user ?? { id: '', email: '', name: '', emailVerified: false };
}

export function useUserId(): string {
  return useUser().id;
}

export async function login(body: Login): Promise<void> {
  const { data } = await api.post<{ data: Tokens }>('/api/auth/login', { body, anonymous: true });
  sayAtSignIn(undefined);
  tokens.write(data);
}

/** Makes an account; says whether it is signed in: not where the address has to be confirmed first. */
export async function register(body: Registration): Promise<boolean> {
  const { data } = await api.post<{ data?: Tokens }>('/api/auth/register', { body, anonymous: true });
  if (!data) return false;
  sayAtSignIn(undefined);
  tokens.write(data);
  return true;
}

/** Signs out here at once; the server is told behind, and need not be reachable for it. */
export function logout(): void {
  const signIn = tokens.read();
  sayAtSignIn(undefined);
  tokens.write(null);
  if (!signIn) return;
  api
    .post('/api/auth/logout', { body: { refreshToken: signIn.refreshToken }, anonymous: true })
    .catch(() => undefined);
}

/** Goes to the sign-in after the server has ended this one; `why` is said there. */
export function signedOutBecause(why: string): void {
  sayAtSignIn(why);
  tokens.write(null);
}
