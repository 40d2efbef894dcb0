/** The page's sign-in, as terminals use it. */

import { api } from '@/api/client';
import { ApiError, SIGNED_OUT } from '@/api/errors';
import type { TerminalAuth } from './url';

let last = '';

export const pageAuth: TerminalAuth = {
  async token(renew) {
    try {
      last = renew ? (await api.refresh(last)).accessToken : await api.accessToken();
      return last;
    } catch (error) {
      if (error instanceof ApiError && error.code === SIGNED_OUT) return null;
      throw error;
    }
  },
};
